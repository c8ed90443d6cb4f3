"""The weights of a language model: the config is read at once, and the weights are loaded when they are first needed.

weights = Weights.open(section)          # loads only the config
weights.config.num_hidden_layers
weights.model                            # loaded now; `unload` lets it go
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
    are known before anything is loaded. For a composite checkpoint, they belong to the text model. `files` is None for
    a model that was not loaded from files; its revision is `given_revision`. When `stays` is true, `unload` does
    nothing.
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
        """The weights that a recipe names, on its device. Loads nothing yet. Raises TeacherError."""
        files = ModelFiles.find(section.model, section.revision)
        return cls(section.model, section.dtype, pick_device(section.device), *load_configs(files), files)

    @classmethod
    def load(cls, section: TeacherSection) -> Weights:
        """The weights that a recipe names, loaded at once. They stay in memory. Raises TeacherError."""
        files, device = ModelFiles.find(section.model, section.revision), pick_device(section.device)
        model = load_model(files, section.dtype).to(device)
        prefix.enable(model)
        configs = (model.config, model.generation_config)
        return cls(section.model, section.dtype, device, *configs, files, stays=True, _model=model)

    @classmethod
    def of(cls, model: PreTrainedModel, name: str = "", revision: str = "", dtype: str = "float32") -> Weights:
        """The weights of a model in memory. They stay in memory."""
        prefix.enable(model)
        configs = (model.config, model.generation_config)
        return cls(name, dtype, model.device, *configs, None, revision, stays=True, _model=model)

    @property
    def revision(self) -> str:
        """The exact revision. Raises TeacherError when the folder has no weights."""
        return self.files.revision if self.files else self.given_revision

    @property
    def are_there(self) -> bool:
        """Whether the files of the weights can be read, as far as is known without loading them."""
        return self.files is None or self.files.has_weights()

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(self.config.num_hidden_layers)

    @property
    def context(self) -> int:
        """The number of tokens that the model can read; a very large number when its config does not say."""
        return int(getattr(self.config, "max_position_embeddings", 0) or 1 << 30)

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def model(self) -> PreTrainedModel:
        """The model in eval mode. Loads it if necessary. Raises TeacherError when the weights cannot be loaded."""
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
        """Release the weights. They are loaded again when they are next needed."""
        if not self.stays:
            self._model = None
