-- Sums of windows by function and hour (`hours.rs`): of all windows whose number is less than `next`.
CREATE TABLE hours (
    function TEXT NOT NULL,
    hour_us INTEGER NOT NULL,
    sums BLOB NOT NULL,
    PRIMARY KEY (function, hour_us)
) STRICT, WITHOUT ROWID;
CREATE INDEX hours_hour ON hours (hour_us);
CREATE TABLE summed (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    next INTEGER NOT NULL
) STRICT;
INSERT INTO summed VALUES (1, 0);
