//! `dormouse new` writes files that are embedded in the program; Cargo must know when they change.

fn main() {
    for folder in ["templates", "../guest-sdk", "../wit"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}
