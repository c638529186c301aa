// Follows the link beside it, once: a rerun in between draws the same link again.
export default function () {
  const follow = () => {
    const link = document.querySelector(".st-key-turn a");
    if (!link) return requestAnimationFrame(follow); // drawn with the next frame
    if (link.dataset.followed === link.href) return;
    link.dataset.followed = link.href;
    link.click();
  };
  follow();
}
