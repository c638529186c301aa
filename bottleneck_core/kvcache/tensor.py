"""One cached tensor of one layer: packed pages, and a ring of its newest rows in fp16.

Pages hold every row. They are allocated one at a time and never copied to grow. A page that two caches share is
copied by the one that wants to write into it. The ring, where there is one, holds the newest rows once more: the row
at position p sits in slot p % R.

Legend: B batch, T tokens, W row width (all heads), N blocks a row, c bytes a block, R rows of the ring.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bottleneck_core.kvcache.formats import PLAIN, Packed, code_bytes, pack_unchecked, unpack
from bottleneck_core.memory.formats import FORMATS

NATIVE = "native"


@dataclass
class Page:
    """`page` rows of every request: codes (B, page, N * c) uint8 and scales (B, page, N), or values (B, page, W)."""

    codes: Tensor
    scales: Tensor | None
    shared: bool = False

    def parts(self) -> list[Tensor]:
        return [self.codes] if self.scales is None else [self.codes, self.scales]

    def copy(self) -> Page:
        return Page(self.codes.clone(), None if self.scales is None else self.scales.clone())


class CachedTensor:
    """Rows of `width` values in the format `kind`, `qblock` values a block, the newest `residual` in fp16 as well.

    `kind` "native" stores values in `dtype` as they are. Only quantised kinds have a ring.
    """

    def __init__(
        self,
        *,
        kind: str,
        width: int,
        qblock: int,
        residual: int,
        batch: int,
        page: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.kind = kind
        self.width = width
        self.batch = batch
        self.page = page
        self.device = device
        self.dtype = dtype
        self.quantised = kind != NATIVE and FORMATS[kind].quantised
        self.residual = residual if self.quantised else 0
        self.has_scales = kind != NATIVE and kind not in PLAIN
        self.block = 1 if kind == NATIVE else FORMATS[kind].block(width, qblock)
        self.pages: list[Page] = []
        self._table: tuple[Tensor, Tensor | None] | None = None  # addresses of the pages, until these change
        self.ring: Tensor | None = self._rows(0) if self.residual else None  # (B, R, W), R up to `residual`

    @property
    def nbytes(self) -> int:
        """Bytes of all pages and of the ring."""
        parts = [part for page in self.pages for part in page.parts()]
        if self.ring is not None:
            parts.append(self.ring)
        return sum(part.numel() * part.element_size() for part in parts)

    def write(self, rows: Tensor, start: int) -> None:
        """Store rows (B, T, W) at positions `start` and after. What follows them is forgotten."""
        packed = self._pack(rows)
        stop = start + rows.size(1)
        self._grow(stop)
        for index in range(start // self.page, -(-stop // self.page)):
            first, last = max(start, index * self.page), min(stop, (index + 1) * self.page)
            into, out_of = (
                slice(first - index * self.page, last - index * self.page),
                slice(first - start, last - start),
            )
            page = self._own(index)
            page.codes[:, into] = packed.codes[:, out_of]
            if page.scales is not None and packed.scales is not None:
                page.scales[:, into] = packed.scales[:, out_of]
        if self.ring is not None:
            self._remember(rows, start)

    def reserve(self, position: int) -> bool:
        """Have a page of this tensor's own at `position`, for a kernel to write into; whether a page is another now."""
        index = position // self.page
        if index < len(self.pages) and not self.pages[index].shared:
            return False
        self._grow(position + 1)
        self._own(index)
        return True

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The rows at positions start .. stop - 1 as the pages hold them, (B, stop - start, W) in `dtype`."""
        pieces = []
        for index in range(start // self.page, -(-stop // self.page)):
            page, offset = self.pages[index], index * self.page
            within = slice(max(start - offset, 0), min(stop - offset, self.page))
            scales = None if page.scales is None else page.scales[:, within]
            pieces.append(Packed(page.codes[:, within], scales))
        if not pieces:
            return torch.empty(self.batch, 0, self.width, dtype=dtype, device=self.device)
        joined = pieces[0] if len(pieces) == 1 else _joined(pieces)
        if self.kind == NATIVE:
            return joined.codes.to(dtype)
        return unpack(joined, self.kind, self.width, self.block, dtype)

    def read_recent(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """As `read`, from the ring where there is one: its rows must still be there."""
        if self.ring is None:
            return self.read(start, stop, dtype)
        slots = torch.arange(start, stop, device=self.device) % self.residual
        return self.ring[:, slots].to(dtype)

    def code_addresses(self) -> Tensor:
        """Where each page's codes (or values) begin, (pages,) int64 on the device; for kernels."""
        return self._addresses()[0]

    def scale_addresses(self) -> Tensor | None:
        """Where each page's scales begin, or None for a kind without scales."""
        return self._addresses()[1]

    def rounded(self, rows: Tensor) -> Tensor:
        """New rows as `read_recent` will give them back, without storing them; same dtype."""
        return rows.half().to(rows.dtype) if self.ring is not None else self._unpacked(rows)

    def truncate(self, length: int) -> None:
        """Forget positions from `length` on, and free what only they needed."""
        del self.pages[-(-length // self.page) :]
        self._table = None
        if self.ring is not None and length < self.ring.size(1):
            self.ring = self.ring[:, :length].clone()

    def fork(self, length: int, rows: Tensor | None) -> CachedTensor:
        """The first `length` positions as a tensor of its own; full pages are shared until one of the two writes.

        `rows` (B',) int64 picks requests, and then everything is copied.
        """
        other = CachedTensor(
            kind=self.kind,
            width=self.width,
            qblock=self.block,
            residual=self.residual,
            batch=self.batch if rows is None else rows.numel(),
            page=self.page,
            device=self.device,
            dtype=self.dtype,
        )
        for page in self.pages[: -(-length // self.page)]:
            if rows is None:
                page.shared = True
                other.pages.append(page)
            else:
                other.pages.append(Page(page.codes[rows], None if page.scales is None else page.scales[rows]))
        if self.ring is not None:
            kept = self.ring[:, :length]
            other.ring = kept.clone() if rows is None else kept[rows]
        return other

    def _pack(self, rows: Tensor) -> Packed:
        if self.kind == NATIVE:
            return Packed(rows.to(self.dtype), None)
        return pack_unchecked(rows, self.kind, self.block)

    def _unpacked(self, rows: Tensor) -> Tensor:
        if self.kind == NATIVE:
            return rows.to(self.dtype).to(rows.dtype)
        return unpack(self._pack(rows), self.kind, self.width, self.block, rows.dtype)

    def _new_page(self) -> Page:
        if self.kind == NATIVE or self.kind in PLAIN:
            dtype = self.dtype if self.kind == NATIVE else PLAIN[self.kind]
            return Page(self._empty(self.width, dtype), None)
        blocks = -(-self.width // self.block)
        codes = self._empty(blocks * code_bytes(self.kind, self.block), torch.uint8)
        return Page(codes, self._empty(blocks, torch.float16))

    def _empty(self, columns: int, dtype: torch.dtype) -> Tensor:
        # Zeros: kernels read whole tiles, and an undefined number times a weight of zero would still be undefined.
        return torch.zeros(self.batch, self.page, columns, dtype=dtype, device=self.device)

    def _addresses(self) -> tuple[Tensor, Tensor | None]:
        if self._table is None:
            codes = [page.codes.data_ptr() for page in self.pages]
            scales = [page.scales.data_ptr() for page in self.pages if page.scales is not None]
            self._table = (self._address_table(codes), self._address_table(scales) if self.has_scales else None)
        return self._table

    def _address_table(self, addresses: list[int]) -> Tensor:
        return torch.tensor(addresses, dtype=torch.int64, device=self.device)

    def _grow(self, stop: int) -> None:
        while len(self.pages) * self.page < stop:
            self.pages.append(self._new_page())
            self._table = None

    def _own(self, index: int) -> Page:
        if self.pages[index].shared:
            self.pages[index] = self.pages[index].copy()
            self._table = None
        return self.pages[index]

    def _rows(self, count: int) -> Tensor:
        return torch.zeros(self.batch, count, self.width, dtype=torch.float16, device=self.device)

    def _remember(self, rows: Tensor, start: int) -> None:
        assert self.ring is not None
        stop = start + rows.size(1)
        missing = min(stop, self.residual) - self.ring.size(1)
        if missing > 0:  # until the window is full, slots are positions
            self.ring = torch.cat((self.ring, self._rows(missing)), dim=1)
        first = max(start, stop - self.residual)
        slots = torch.arange(first, stop, device=self.device) % self.residual
        self.ring[:, slots] = rows[:, first - start :].half()


def _joined(pieces: list[Packed]) -> Packed:
    scales = [piece.scales for piece in pieces if piece.scales is not None]
    return Packed(torch.cat([piece.codes for piece in pieces], dim=1), torch.cat(scales, dim=1) if scales else None)
