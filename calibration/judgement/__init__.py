"""Is an inversion true: verdict, report, figures, refinement, verification against VISIT, recovery studies."""
