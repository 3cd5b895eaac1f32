-- Until version 2 the checksum of compiled code lay in a file beside it. Code without one is compiled again.
CREATE TABLE code (
    component TEXT NOT NULL, -- SHA-256
    engine    TEXT NOT NULL, -- what else the code depends on
    sha256    TEXT NOT NULL, -- of the file of compiled code
    PRIMARY KEY (component, engine)
) STRICT, WITHOUT ROWID;
