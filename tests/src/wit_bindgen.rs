//! `wit-bindgen c`, from the same library as the command of `wit-bindgen-cli`: what the tests need of it, without the
//! minutes that it takes to compile the command with all that it can do beside.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

#[derive(Parser)]
#[command(name = "wit-bindgen")]
enum Arguments {
    /// Generate bindings for C
    C {
        #[command(flatten)]
        options: wit_bindgen_c::Opts,
        #[arg(long)]
        out_dir: PathBuf,
        #[arg(long)]
        world: Option<String>,
        wit: PathBuf,
    },
}

/// Runs the command with these arguments, of which the first is its name.
///
/// # Errors
///
/// If they cannot be read, there is no such world, or its files cannot be written.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<()> {
    let Arguments::C { options, out_dir, world, wit } = Arguments::try_parse_from(arguments)?;
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&wit)?;
    let world = resolve.select_world(&[package], world.as_deref())?;
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (name, bytes) in files.iter() {
        let path = out_dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&out_dir))
            .with_context(|| format!("create {}", out_dir.display()))?;
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
