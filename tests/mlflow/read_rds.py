"""Runs in MLflow's environment, which has `rdata`, that reads R's files without R: answers of a linear model, as JSON.

Argument: the `.rds` file. Standard input: the rows, as lists of values by name.
"""

import json
import sys

import rdata

model = rdata.read_rds(sys.argv[1])
rows = json.load(sys.stdin)
coefficients = model["coefficients"]
named = dict(zip(coefficients.coords["dim_0"].values.tolist(), coefficients.values.tolist(), strict=True))
count = len(next(iter(rows.values())))
print(json.dumps([named["(Intercept)"] + sum(named[name] * values[i] for name, values in rows.items()) for i in range(count)]))
