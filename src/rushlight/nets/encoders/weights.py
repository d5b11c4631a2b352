"""An encoder's weights from a file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.nets.encoders.base import Encoder
from rushlight.nets.encoders.timm import Timm

MODELS = "encoders."
"""What the names of an encoder's weights begin with in the file of a whole model; the encoder's name follows."""


def load_weights(encoder: Encoder, path: Path) -> None:
    """Load a safetensors file into an encoder: of an encoder of ours, of a saved model (its heads are left), or a timm
    checkpoint of the same architecture.

    Raises:
        UserError: not a safetensors file (pickles are never loaded), or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rushlight.nets.encoders.multimodal import MultiModal

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); pickled weights are never loaded"
        ) from None
    state = _of_model(state, encoder)
    target: nn.Module = encoder
    if isinstance(encoder, MultiModal):
        state = encoder.completed(state)
    elif isinstance(encoder, Timm) and not any(key.startswith("model.") for key in state):
        target = encoder.model
        state = {key: value for key, value in state.items() if key in target.state_dict()}
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"the weights in {path} do not fit the encoder '{encoder.name}': {reason}") from None


def _of_model(state: dict[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """Return, from a whole model's weights, those of the encoder that reads the same input (else of the first one)."""
    names = [key.removeprefix(MODELS).partition(".")[0] for key in state if key.startswith(MODELS)]
    if not names:
        return state
    prefix = f"{MODELS}{encoder.columns[0] if encoder.columns[0] in names else names[0]}."
    return {key.removeprefix(prefix): values for key, values in state.items() if key.startswith(prefix)}
