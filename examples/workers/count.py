"""Counts the changes of each user, whose keys are a name or an array that begins with it, in the space changes."""
import collections, json, sys

def hear(): return json.loads(sys.stdin.readline() or sys.exit())
def tell(line): print(json.dumps(line), flush=True)

hear(), tell({"batchlog": 1})
while True:
    ops = [op for commit in hear()["commits"] for op in commit["ops"]]
    keys = [change["key"] for op in ops for change in op.values() if "key" in change]
    counts = collections.Counter(key[0] if isinstance(key, list) else key for key in keys)
    for user in counts:
        tell({"get": {"space": "changes", "key": user}})
        counts[user] += int(hear().get("value", 0))
    tell({"ops": [{"put": {"space": "changes", "key": user, "value": str(n)}} for user, n in counts.items()]})
