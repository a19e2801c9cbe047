"""The use cases: keys, jobs from submission to result, links to pictures. Knows neither HTTP nor tensors."""
