"""The weights of a language model. `Weights.open` reads only the model's config. The weights are loaded when they are
first needed.

    weights = Weights.open(section)          # reads only the config
    weights.config.num_hidden_layers
    weights.model                            # loads the weights; `unload` releases them
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from synthgen.lm import prefix
from synthgen.lm.files import ModelFiles
from synthgen.lm.load import load_configs, load_model, pick_device
from synthgen.tables.engines import TeacherSection


@dataclass
class Weights:
    """The weights of one causal language model on one device.

    `name` is the model's name in the recipe, and `dtype` the name of its number type. `config` and `generation_config`
    are known before the weights are loaded. For a checkpoint with several models, such as text and vision, both configs
    belong to the text model. `files` is None for a model that was given in memory. The revision of a model that was
    given in memory is `given_revision`. When `stays` is true, `unload` does nothing.
    """

    name: str
    dtype: str
    device: torch.device
    config: PreTrainedConfig
    generation_config: GenerationConfig | None
    files: ModelFiles | None = None
    given_revision: str = ""
    stays: bool = False
    _model: PreTrainedModel | None = None

    @classmethod
    def open(cls, section: TeacherSection) -> Weights:
        """The weights of the model that a recipe names, not loaded yet. Raises TeacherError."""
        files = ModelFiles.find(section.model, section.revision)
        return cls(section.model, section.dtype, pick_device(section.device), *load_configs(files), files)

    @classmethod
    def load(cls, section: TeacherSection) -> Weights:
        """Load the weights of the model that a recipe names. `unload` does not release these weights. Raises
        TeacherError.
        """
        files, device = ModelFiles.find(section.model, section.revision), pick_device(section.device)
        model = load_model(files, section.dtype).to(device)
        prefix.enable(model)
        configs = (model.config, model.generation_config)
        return cls(section.model, section.dtype, device, *configs, files, stays=True, _model=model)

    @classmethod
    def of(cls, model: PreTrainedModel, name: str = "", revision: str = "", dtype: str = "float32") -> Weights:
        """The weights of a model in memory. `unload` does not release these weights."""
        prefix.enable(model)
        configs = (model.config, model.generation_config)
        return cls(name, dtype, model.device, *configs, None, revision, stays=True, _model=model)

    @property
    def revision(self) -> str:
        """The exact revision: a commit or a hash. Raises TeacherError when the model's folder has no weights."""
        return self.files.revision if self.files else self.given_revision

    @property
    def are_there(self) -> bool:
        """Whether the weight files can be read. For a hub id this is not checked, and the result is True."""
        return self.files is None or self.files.has_weights()

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(self.config.num_hidden_layers)

    @property
    def context(self) -> int:
        """The maximum number of tokens that the model can read. The result is 2**30 when the config names no
        maximum.
        """
        return int(getattr(self.config, "max_position_embeddings", 0) or 1 << 30)

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary, which is the width of the logits."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def model(self) -> PreTrainedModel:
        """The model in eval mode. Loads the model if necessary. Raises TeacherError when the weights cannot be
        loaded.
        """
        if self._model is None:
            assert self.files is not None
            self._model = load_model(self.files, self.dtype).to(self.device)
            prefix.enable(self._model)
        return self._model

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def unload(self) -> None:
        """Release the weights, which are loaded again when they are next needed."""
        if not self.stays:
            self._model = None
