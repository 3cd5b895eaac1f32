-- The ledger's tables, version 1. Times are microseconds since 1970 (_us), spans are nanoseconds (_ns).

-- One row for each active window. state: 0 open, 1 ended, 2 lost with a killed host.
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    version TEXT NOT NULL,
    instance INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    start_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    state INTEGER NOT NULL,
    busy INTEGER NOT NULL,
    open_ns INTEGER NOT NULL,
    executed_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    hook_calls INTEGER NOT NULL,
    memory_bytes_peak INTEGER NOT NULL,
    memory_mb INTEGER NOT NULL,
    by_duration INTEGER NOT NULL,
    parked_ns INTEGER NOT NULL,
    parked_bytes INTEGER NOT NULL,
    UNIQUE (instance, sequence)
) STRICT;
CREATE INDEX windows_function_start ON windows (function, start_us);
CREATE INDEX windows_start ON windows (start_us);
CREATE INDEX windows_open ON windows (state) WHERE state = 0;

-- One row for each request that was accepted. Callers choose request identifiers, so they may repeat.
CREATE TABLE invocations (
    id INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    function TEXT NOT NULL,
    version TEXT NOT NULL,
    instance INTEGER,
    start_us INTEGER NOT NULL,
    queued_ns INTEGER NOT NULL,
    handler_ns INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    delivered INTEGER NOT NULL
) STRICT;
CREATE INDEX invocations_function_start ON invocations (function, start_us);
CREATE INDEX invocations_start ON invocations (start_us);

-- When the host was last known to be alive; one row.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_us INTEGER NOT NULL
) STRICT;
INSERT INTO heartbeat (id, at_us) VALUES (1, 0);
