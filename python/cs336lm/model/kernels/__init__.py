"""Fast twins of formulas, each beside the formula that it must equal."""
