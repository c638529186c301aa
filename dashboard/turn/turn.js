// Follows the link beside it, once: a rerun in between draws the same link again.
export default function () {
  let frame = 0;
  const follow = () => {
    const link = document.querySelector(".st-key-turn a");
    if (!link) {
      frame = requestAnimationFrame(follow); // drawn with the next frame
    } else if (link.dataset.followed !== link.href) {
      link.dataset.followed = link.href;
      link.click();
    }
  };
  follow();
  return () => cancelAnimationFrame(frame); // the page was left before
}
