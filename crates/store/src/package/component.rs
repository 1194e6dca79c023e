//! The WebAssembly component of a package: the package itself, or one file of a zip.

use std::io::{Read, Seek, SeekFrom};

use lambent_model::{limits, wasm};
use zip::ZipArchive;

use super::plan::{self, Kind};
use super::{Contents, Error};

/// Names that are looked for when the handler names no file.
const USUAL: [&str; 2] = ["bootstrap.wasm", "function.wasm"];

/// Says whether [`read`] would take a package.
pub fn check(package: &[u8], handler: Option<&str>) -> Result<Contents, Error> {
    if wasm::is_wasm(package) {
        wasm::check(package).map_err(refused)?;
        return Ok(Contents { entries: 1, unzipped_bytes: package.len() as u64 });
    }
    let contents = super::check(package)?;
    read(std::io::Cursor::new(package), handler)?;
    Ok(contents)
}

/// The component: `package` where that is one, else the file that `handler` names (with or without `.wasm`), else `bootstrap.wasm`,
/// `function.wasm`, or the only file that ends in `.wasm`.
pub fn read(mut package: impl Read + Seek, handler: Option<&str>) -> Result<Vec<u8>, Error> {
    let mut start = [0; 4];
    let is_bare = package.read_exact(&mut start).is_ok() && wasm::is_wasm(&start);
    package.seek(SeekFrom::Start(0)).map_err(Error::Io)?;
    let component = if is_bare { whole(package)? } else { unzipped(package, handler)? };
    wasm::check(&component).map_err(refused)?;
    Ok(component)
}

fn refused(reason: &'static str) -> Error {
    Error::Component { reason: reason.to_owned() }
}

fn whole(from: impl Read) -> Result<Vec<u8>, Error> {
    let limit = limits::UNZIPPED_CODE_BYTES;
    let mut bytes = Vec::new();
    let count = from.take(limit).read_to_end(&mut bytes).map_err(Error::unreadable)?;
    if count as u64 == limit { Err(Error::TooLarge { limit }) } else { Ok(bytes) }
}

fn unzipped(package: impl Read + Seek, handler: Option<&str>) -> Result<Vec<u8>, Error> {
    let mut zip = ZipArchive::new(package).map_err(Error::unreadable)?;
    let entries = plan::plan(&mut zip)?;
    let files: Vec<(usize, String)> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, Kind::File { .. }))
        .map(|entry| (entry.index, entry.path.to_string_lossy().into_owned()))
        .filter(|(_, name)| name.ends_with(".wasm"))
        .collect();
    let named = |wanted: &str| files.iter().find(|(_, name)| name == wanted).map(|(index, _)| *index);
    let by_handler = handler.and_then(|handler| named(handler).or_else(|| named(&format!("{handler}.wasm"))));
    let only = || if let [(index, _)] = files.as_slice() { Some(*index) } else { None };
    let index = by_handler.or_else(|| USUAL.into_iter().find_map(named)).or_else(only);
    let Some(index) = index else {
        let reason = match files.len() {
            0 => "The package holds no .wasm file.".to_owned(),
            count => format!("The package holds {count} .wasm files, and the handler names none of them."),
        };
        return Err(Error::Component { reason });
    };
    whole(zip.by_index(index).map_err(Error::unreadable)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0rest";

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn chosen(files: &[(&str, &[u8])], handler: &str) -> Result<Vec<u8>, String> {
        read(Cursor::new(zip(files)), Some(handler)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_handler_the_usual_names_and_the_only_file_are_found_in_this_order() {
        let other = [COMPONENT, b"other"].concat();
        assert_eq!(chosen(&[("a.wasm", COMPONENT), ("function.wasm", &other)], "a").unwrap(), COMPONENT);
        assert_eq!(chosen(&[("a.wasm", COMPONENT), ("function.wasm", &other)], "a.wasm").unwrap(), COMPONENT);
        assert_eq!(chosen(&[("a.wasm", COMPONENT), ("function.wasm", &other)], "x").unwrap(), other);
        assert_eq!(chosen(&[("deep/a.wasm", COMPONENT), ("readme.md", b"text")], "x").unwrap(), COMPONENT);
        assert_eq!(read(Cursor::new(COMPONENT), None).unwrap(), COMPONENT);
        assert!(check(COMPONENT, None).is_ok());
    }

    #[test]
    fn what_is_no_component_is_refused_with_the_reason() {
        let refused = |files: &[(&str, &[u8])]| chosen(files, "x").unwrap_err();
        assert!(refused(&[("readme.md", b"text")]).contains("no .wasm file"));
        assert!(refused(&[("a.wasm", COMPONENT), ("b.wasm", COMPONENT)]).contains("2 .wasm files"));
        assert!(refused(&[("a.wasm", b"\0asm\x01\0\0\0")]).contains("core WebAssembly module"));
        assert!(refused(&[("a.wasm", b"text")]).contains("no WebAssembly component"));
        assert!(check(b"\0asm\x01\0\0\0", None).unwrap_err().to_string().contains("core WebAssembly module"));
        assert!(check(b"neither", None).is_err());
    }
}
