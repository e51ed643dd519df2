"""The project's own words, for every report; docs/method.md says more."""

GLOSSARY = {
    "process model": "VISIT's carbon core, or your own VISIT: what the emulator stands for.",
    "emulator": "A small LSTM that corrects a first guess from VISIT's closed forms; thousands of times faster.",
    "prior": "What is supposed of a parameter before the data: anywhere in its range with equal chance.",
    "posterior": "What the data leave of the prior.",
    "informed": "A parameter whose posterior sd is below 0.7 of its prior sd.",
    "90 % interval": "Where the true value lies with 90 percent probability, if model and error model are right.",
    "latent": "The coordinate in which the search runs: the prior is a standard normal there, bounds and ties hold.",
    "stretch": "Consecutive observed days with the weather before them, predicted in one run.",
    "window": "30 days to predict and the 180 days of weather before them.",
    "at rest": "A forest whose carbon pools changed no more when the run began.",
    "unseen runs": "Runs of the ensemble that the emulator was never trained on.",
    "discrepancy": "Slow misfit that neither observation noise nor the emulator's known error explains.",
    "baseline": "The simplest competitor: a constant, the day-of-year mean, yesterday's value.",
}
