"""`./nexusmix bench divergence-page`: write the results page "divergence" from the results."""
