# Reads the monitoring kit; prints as JSON what it queries and which metrics it names.
import json
import re
import sys

import yaml

directory = sys.argv[1]


def load(name):
    with open(f"{directory}/{name}", encoding="utf-8") as file:
        return json.load(file) if name.endswith(".json") else yaml.safe_load(file)


# [metric, query, its columns]
queries = []

collector = load("webhook_ext.collector.yml")
assert collector["collector_name"] and collector["metrics"]
for metric in collector["metrics"]:
    assert metric["type"] in ("gauge", "counter"), metric
    assert metric["help"], metric
    columns = metric.get("key_labels", []) + metric["values"]
    queries.append([[metric["metric_name"]], metric["query"], columns])

for group, entry in load("postgres_exporter.yml").items():
    columns, names = [], []
    for metric in entry["metrics"]:
        ((column, about),) = metric.items()
        assert about["usage"] in ("LABEL", "GAUGE", "COUNTER", "HISTOGRAM"), metric
        assert about["description"], metric
        columns.append(column)
        if about["usage"] == "HISTOGRAM":
            names += [f"{group}_{column}_{part}" for part in ("bucket", "sum", "count")]
            columns += [f"{column}_{part}" for part in ("bucket", "sum", "count")]
        elif about["usage"] != "LABEL":
            names.append(f"{group}_{column}")
    queries.append([names, entry["query"], columns])

expressions = []
alerts = set()
for group in load("alerts.yml")["groups"]:
    assert group["name"]
    for rule in group["rules"]:
        assert rule["alert"] not in alerts, rule
        alerts.add(rule["alert"])
        assert rule["labels"]["severity"] in ("warning", "critical"), rule
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], rule
        assert re.fullmatch(r"(\d+[smhd])?", rule.get("for", "")), rule
        expressions.append(rule["expr"])

dashboard = load("dashboard.json")
assert dashboard["title"] and dashboard["schemaVersion"] >= 36
ids = [panel["id"] for panel in dashboard["panels"]]
assert len(ids) == len(set(ids)) > 0
cells = set()
for panel in dashboard["panels"]:
    place = panel["gridPos"]
    assert panel["title"] and panel["type"] in ("stat", "timeseries"), panel
    assert 0 <= place["x"] and place["x"] + place["w"] <= 24, panel
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            assert (x, y) not in cells, f"{panel['title']} lies over another panel"
            cells.add((x, y))
    assert panel["targets"], panel
    expressions += [target["expr"] for target in panel["targets"]]

for expression in expressions:
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing), expression

# Labels stand behind by.
bare = [re.sub(r"\bby \([^)]*\)", "", expression) for expression in expressions]
named = sorted({name for e in bare for name in re.findall(r"\bwebhook_[a-z_]+\b", e)})
json.dump({"queries": queries, "named": named, "alerts": len(alerts)}, sys.stdout)
