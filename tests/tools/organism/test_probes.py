from __future__ import annotations

import torch

from tools.organism.probes import earliest_within, fit_probe, probe_accuracies

GENERATOR = torch.Generator().manual_seed(0)


def test_a_probe_reads_what_is_there_and_finds_the_earliest_site():
    labels = torch.arange(60) % 2
    noise = torch.randn(60, 3, 4, generator=GENERATOR, dtype=torch.float64)
    noise[:, 1:, 0] += 20 * labels.unsqueeze(1).double()
    accuracies = probe_accuracies((noise, labels), (noise, labels))
    assert accuracies[1:] == [1.0, 1.0]
    assert accuracies[0] < 0.9
    assert earliest_within(accuracies) == 1
    assert fit_probe(noise[:, 1], labels, 2).shape == (5, 2)
