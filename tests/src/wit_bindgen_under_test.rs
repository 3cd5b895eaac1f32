//! The program that manifests of functions in C call; see `tests::wit_bindgen`.

fn main() -> anyhow::Result<()> {
    tests::wit_bindgen::run(std::env::args_os())
}
