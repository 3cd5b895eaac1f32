-- The ledger's tables, version 2. Times are microseconds since 1970 (_us). What `data` holds is in `record.rs`.

-- Many records each, of windows that ended (kind 1) and of requests (kind 2). All start within one hour. `function` is
-- theirs if it is the same; `first_number` is the first record's, the others follow.
CREATE TABLE blocks (
    kind INTEGER NOT NULL,
    id INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    first_number INTEGER NOT NULL,
    records INTEGER NOT NULL,
    function TEXT,
    data BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
CREATE INDEX blocks_start ON blocks (kind, first_us, last_us, function);

-- One row for each window that has not ended.
CREATE TABLE open_windows (
    instance INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (instance, sequence)
) STRICT, WITHOUT ROWID;

-- When the host was last known to be alive; one row.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_us INTEGER NOT NULL
) STRICT;
INSERT INTO heartbeat (id, at_us) VALUES (1, 0);
