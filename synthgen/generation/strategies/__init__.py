"""The generators of STRATEGIES: `single` has those of one round; `choosing` asks several times and keeps what is best;
`asking` makes new questions first."""
