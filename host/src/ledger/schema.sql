-- The ledger's tables, version 6, without those that `schema_5_to_6.sql` adds. Times are microseconds since 1970 (_us).

-- Records are written once and read seldom, so a row holds a block of them, in the form that `rows.rs` describes. The
-- records of a block are of one function and version and start within the same 2^21 us (`block.rs`): `first_us` is the
-- earliest start, `last_us` the latest, `count` how many they are. `id` is the number of the first record; the others
-- are numbered on from it.

-- Windows that ended (state 1), or were lost with a killed host (2).
CREATE TABLE window_blocks (
    id INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    version TEXT NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    count INTEGER NOT NULL,
    rows BLOB NOT NULL
) STRICT;
CREATE INDEX window_blocks_function_first ON window_blocks (function, first_us);
CREATE INDEX window_blocks_first ON window_blocks (first_us);

-- Requests that were accepted. Callers choose request identifiers, so they may repeat.
CREATE TABLE invocation_blocks (
    id INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    version TEXT NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    count INTEGER NOT NULL,
    rows BLOB NOT NULL
) STRICT;
CREATE INDEX invocation_blocks_function_first ON invocation_blocks (function, first_us);
CREATE INDEX invocation_blocks_first ON invocation_blocks (first_us);

-- Windows that have not ended; the next host closes those that a killed host left. `row` is a block of this one window.
CREATE TABLE open_windows (
    instance INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    function TEXT NOT NULL,
    version TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    row BLOB NOT NULL,
    PRIMARY KEY (instance, sequence)
) STRICT, WITHOUT ROWID;

-- When the host was last known to be alive, and the date by which records grow old (`calendar.rs`; 0: not known); one row.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_us INTEGER NOT NULL,
    date_us INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO heartbeat (id, at_us) VALUES (1, 0);
