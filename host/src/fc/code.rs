//! Code as these APIs carry it: a zip that holds a component, and its checksum.

use std::borrow::Cow;
use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc::{CRC_64_XZ, Crc};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::fault::Fault;

/// Files that a zip may hold.
const FILES_MAX: usize = 10_000;
/// The name of the component in a zip that this host makes.
const COMPONENT: &str = "function.wasm";
/// Of what is no component, so many are named.
const NAMED_MAX: usize = 5;
const CHECKSUM: Crc<u64, crc::Table<16>> = Crc::<u64, crc::Table<16>>::new(&CRC_64_XZ);

/// Code that was uploaded.
pub(super) struct Code {
    /// The component.
    pub(super) component: Bytes,
    /// Bytes of the zip.
    pub(super) size: usize,
    /// Of the zip: CRC-64 of ECMA-182, reflected, in decimal digits.
    pub(super) checksum: String,
}

/// The checksum of code: CRC-64 of ECMA-182, reflected, in decimal digits.
pub fn checksum(zip: &[u8]) -> String {
    CHECKSUM.checksum(zip).to_string()
}

/// Reads code that stands in JSON. It takes time.
pub(super) fn decode(base64: &str, component_bytes_max: usize) -> Result<Code, Fault> {
    let zip =
        STANDARD.decode(base64).map_err(|error| Fault::invalid(format!("`code.zipFile` is no base64: {error}")))?;
    read(zip, component_bytes_max)
}

/// Reads a zip, or a component without one. It takes time.
pub(super) fn read(zip: Vec<u8>, component_bytes_max: usize) -> Result<Code, Fault> {
    let (size, checksum) = (zip.len(), checksum(&zip));
    let component = if zip.starts_with(b"\0asm") { zip.into() } else { unpack(&zip, component_bytes_max)?.into() };
    Ok(Code { component, size, checksum })
}

/// The component in a zip. Nothing else of it is unpacked, and nothing is written anywhere.
fn unpack(zip: &[u8], component_bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let broken =
        |error: &dyn std::fmt::Display| Fault::invalid(format!("the code is no zip that can be read: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(|error| broken(&error))?;
    if archive.len() > FILES_MAX {
        return Err(Fault::invalid(format!("the zip holds {} files; at most {FILES_MAX}", archive.len())));
    }
    let names: Result<Vec<String>, _> = archive.file_names().map(|name| name.map(Cow::into_owned)).collect();
    let names = names.map_err(|error| broken(&error))?;
    if let Some(name) = names.iter().find(|name| is_outside(name)) {
        let shown: String = name.chars().take(128).collect();
        return Err(Fault::invalid(format!("the zip has a file outside of its folder: {shown:?}")));
    }
    let components: Vec<&String> = names.iter().filter(|name| name.ends_with(".wasm")).collect();
    let own = match components.as_slice() {
        [one] => one.as_str(),
        [] => return Err(without_component(&names)),
        many => match many.iter().find(|name| name.as_str() == COMPONENT) {
            Some(named) => named.as_str(),
            None => {
                let named: Vec<&str> = many.iter().take(NAMED_MAX).map(|name| name.as_str()).collect();
                let message = format!(
                    "the zip holds {} components ({}); name the one to run `{COMPONENT}`",
                    many.len(),
                    named.join(", ")
                );
                return Err(Fault::invalid(message));
            }
        },
    };
    let file = archive.by_name(own).map_err(|error| broken(&error))?;
    // The size that the zip announces may be a lie.
    let mut component = Vec::new();
    let limit = component_bytes_max as u64;
    file.take(limit + 1).read_to_end(&mut component).map_err(|error| broken(&error))?;
    if component.len() as u64 > limit {
        return Err(Fault::too_large(component_bytes_max));
    }
    Ok(component)
}

fn is_outside(name: &str) -> bool {
    name.starts_with(['/', '\\']) || name.contains('\0') || name.split(['/', '\\']).any(|part| part == "..")
}

fn without_component(names: &[String]) -> Fault {
    let shown: Vec<String> = names.iter().take(NAMED_MAX).map(|name| name.chars().take(80).collect()).collect();
    let what = if shown.is_empty() { "it is empty".to_owned() } else { format!("it has {}", shown.join(", ")) };
    Fault::invalid(format!(
        "the zip holds no WebAssembly component (*.wasm): {what}. Sources are built before they are uploaded; \
         `dormouse build` does that"
    ))
}

/// A zip that holds a component; the same one each time. It blocks.
pub(super) fn pack(component: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(component)?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::with_capacity(bytes.len() + 256)));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file(COMPONENT, options.large_file(bytes.len() as u64 >= u64::from(u32::MAX)))?;
    zip.write_all(&bytes)?;
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn message(read: Result<Code, Fault>) -> String {
        read.err().unwrap().message.into_owned()
    }

    #[test]
    fn the_checksum_is_that_of_crc_64_xz() {
        // The check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(checksum(b"123456789"), 0x995d_c9bb_df19_39fa_u64.to_string());
    }

    #[test]
    fn the_component_of_a_zip_is_found() {
        let one = zip(&[("readme.txt", b"x"), ("a/b.wasm", b"\0asm1")]);
        let code = read(one.clone(), 100).unwrap();
        assert_eq!((&code.component[..], code.size, code.checksum), (&b"\0asm1"[..], one.len(), checksum(&one)));
        let named = zip(&[("other.wasm", b"x"), ("function.wasm", b"y")]);
        assert_eq!(&read(named, 100).unwrap().component[..], b"y");
        assert_eq!(&read(b"\0asm-as-it-is".to_vec(), 100).unwrap().component[..], b"\0asm-as-it-is");
        assert_eq!(&decode(&STANDARD.encode(&one), 100).unwrap().component[..], b"\0asm1");
    }

    #[test]
    fn a_zip_that_cannot_be_meant_is_refused() {
        assert!(message(read(b"zipzip".to_vec(), 100)).contains("no zip that can be read"));
        assert!(message(read(Vec::new(), 100)).contains("no zip that can be read"));
        let mut cut = zip(&[("a.wasm", &[7; 5000])]);
        cut.truncate(cut.len() / 2);
        assert!(message(read(cut, 10_000)).contains("no zip that can be read"));
        let sources = message(read(zip(&[("index.py", b"x")]), 100));
        assert!(sources.contains("index.py") && sources.contains("dormouse build"), "{sources}");
        assert!(
            message(read(zip(&[("a.wasm", b"x"), ("b.wasm", b"y")]), 100)).contains("2 components (a.wasm, b.wasm)")
        );
        for name in ["../a.wasm", "/a.wasm", "x/../../a.wasm", "..\\a.wasm"] {
            assert!(message(read(zip(&[(name, b"x")]), 100)).contains("outside of its folder"), "{name}");
        }
        assert!(message(decode("!", 100)).contains("no base64"));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zip(&[("a.wasm", &vec![0; 50 << 20])]);
        assert!(bomb.len() < 100 << 10);
        assert_eq!(read(bomb, 1 << 20).err().unwrap().code, "EntityTooLarge");
    }

    #[test]
    fn a_component_is_packed_as_it_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wasm");
        std::fs::write(&path, b"\0asm-component").unwrap();
        let (one, other) = (pack(&path).unwrap(), pack(&path).unwrap());
        assert_eq!(one, other);
        assert_eq!(&read(one, 100).unwrap().component[..], b"\0asm-component");
    }
}
