"""Behind `headrace connectors`: connectors by Kafka Connect's REST API, on workers of ours and on a real Kafka Connect.

    client.py   one worker's REST API: addresses, passwords, certificates, waits; errors that say what to check
    workers.py  which worker a file is for, which worker has a connector
    plan.py     files against what runs: what is to create, to change, to delete; doing it
    waiting.py  until a connector is in a state, or has failed
"""
