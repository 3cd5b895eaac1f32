-- The functions' logs, version 1. Times are microseconds since 1970 (_us).

-- A function's log. One that is deployed anew after it was deleted was created at another time, and has another log.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    UNIQUE (function, created_us)
) STRICT;

-- Lines of a log that were written one after another, in the form that `block.rs` describes.
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,
    log INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    lines BLOB NOT NULL
) STRICT;
CREATE INDEX blocks_log_sequence ON blocks (log, first_sequence);
CREATE INDEX blocks_last ON blocks (last_us);

-- The blocks that have lines of a request. Requests are numbered so that those of one time are close to each other
-- (`store.rs`); two may have the same number.
CREATE TABLE requests (
    request INTEGER NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY (request, block)
) STRICT, WITHOUT ROWID;

-- Whether the last host that used the file has stored everything; one row.
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    is_whole INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 1);
