"""A key-value cache with preallocated room, so that a decoding step writes one position and copies nothing."""

from __future__ import annotations

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin


class GrowingLayer(DynamicLayer):
    """A cache layer with preallocated room. A decoding step writes one position and does not copy the earlier
    positions.
    """

    def __init__(self, layer: DynamicLayer, select: torch.Tensor, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.used = layer.keys.shape[2]
        self._slabs = []
        for past in (layer.keys, layer.values):
            slab = past.new_empty((len(select), past.shape[1], self.used + room, past.shape[3]))
            slab[:, :, : self.used] = past[select]
            self._slabs.append(slab)
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (slab[:, :, : self.used] for slab in self._slabs)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values. Returns views of all keys and values."""
        end = self.used + key_states.shape[2]
        for slab, new in zip(self._slabs, (key_states, value_states), strict=True):
            slab[:, :, self.used : end] = new
        self.used = end
        self._show()
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep only the rows `beam_idx` of the batch, in the order of `beam_idx`."""
        self._slabs = [slab[beam_idx] for slab in self._slabs]
        self._show()


def grow_in_place(cache: Cache, select: torch.Tensor, room: int) -> None:
    """Keep only the rows `select` of the cache, in the order of `select`. Every layer of type `DynamicLayer` is
    replaced by a `GrowingLayer` with room for `room` more tokens.
    """
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[number] = GrowingLayer(layer, select, room)
        else:
            layer.reorder_cache(select)


def select_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Keep only the rows `rows` of the cache, in the order of `rows`. A row may occur several times.

    transformers selects rows for a beam search by `reorder_cache`. Its other method, `batch_select_indices`, is missing
    in layers with recurrent states (Mamba, linear attention, convolutions), or forgets these states.
    """
    cache.reorder_cache(rows)


def is_recurrent(cache: Cache) -> bool:
    """Whether a layer has recurrent states, so that it does not keep each earlier token by itself."""
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)
