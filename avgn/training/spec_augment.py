"""SpecAugment: bands of the spectrogram are hidden in training (Park et al., 2019), by torchaudio's transforms.

Legend: B batch, F frequencies.
"""

from __future__ import annotations

from torch import Tensor, nn


class SpecAugment(nn.Module):
    """One band of up to `frequency` rows and one of up to `time` columns of each spectrogram become its mean."""

    def __init__(self, frequency: int, time: int) -> None:
        super().__init__()
        self.masks: list[nn.Module] = []
        if frequency or time:
            from torchaudio.transforms import FrequencyMasking, TimeMasking

            self.masks += [FrequencyMasking(frequency, iid_masks=True)] if frequency else []
            self.masks += [TimeMasking(time, iid_masks=True)] if time else []

    def forward(self, spectrogram: Tensor) -> Tensor:
        """[B,1,F,frames] -> the same shape."""
        if not self.masks:
            return spectrogram
        # torchaudio fills with one number for all: zero is each spectrogram's own mean once that is taken out
        mean = spectrogram.mean(dim=(2, 3), keepdim=True)
        centred = spectrogram - mean
        for mask in self.masks:
            centred = mask(centred)
        return centred + mean
