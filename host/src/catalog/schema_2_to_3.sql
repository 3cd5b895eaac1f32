-- Files of compiled code are executed only if they are what was written. Until version 2 the checksum lay in a file beside
-- the code; code that has none here is compiled again.
CREATE TABLE code (
    component TEXT NOT NULL, -- SHA-256
    engine    TEXT NOT NULL, -- what else the code depends on
    sha256    TEXT NOT NULL, -- of the file of compiled code
    PRIMARY KEY (component, engine)
) STRICT, WITHOUT ROWID;
