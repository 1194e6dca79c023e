#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Cursor, Write as _};
use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

type Writer = ZipWriter<Cursor<Vec<u8>>>;

fn zip(build: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    build(&mut zip);
    zip.finish().unwrap().into_inner()
}

fn file(zip: &mut Writer, name: &str, content: &[u8], mode: u32) {
    zip.start_file(name, SimpleFileOptions::default().unix_permissions(mode)).unwrap();
    zip.write_all(content).unwrap();
}

fn files(names: &[&str]) -> Vec<u8> {
    zip(|zip| names.iter().for_each(|name| file(zip, name, b"x", 0o644)))
}

fn link(name: &str, target: &str) -> Vec<u8> {
    zip(|zip| {
        file(zip, "d/e/file", b"x", 0o644);
        zip.add_symlink(name, target, SimpleFileOptions::default()).unwrap();
    })
}

/// The zip with `from` written over by `to` (of the same length) wherever it stands.
fn forge(mut zip: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..zip.len() - from.len()).filter(|at| zip[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        zip[at..at + to.len()].copy_from_slice(to);
    }
    zip
}

/// Unpacks below a fresh directory; says that refusals leave nothing, and that `check` agrees.
fn unpacked(zip: &[u8]) -> (tempfile::TempDir, Result<Contents, Error>) {
    let parent = tempfile::tempdir().unwrap();
    let result = unpack(Cursor::new(zip), &parent.path().join("code"));
    match (&result, check(zip)) {
        (Ok(contents), Ok(checked)) => assert_eq!(*contents, checked),
        (Err(error), Err(checked)) => {
            assert_eq!(error.to_string(), checked.to_string());
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "left behind");
        }
        (unpacked, checked) => panic!("unpack: {unpacked:?}, check: {checked:?}"),
    }
    (parent, result)
}

fn reason(zip: &[u8]) -> String {
    match unpacked(zip).1 {
        Err(Error::Unreadable { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_package_comes_out_as_it_went_in() {
    let zip = zip(|zip| {
        zip.add_directory("empty", SimpleFileOptions::default()).unwrap();
        file(zip, "app.py", b"print()", 0o600);
        file(zip, "bin/run", &[7; 100_000], 0o4711);
        file(zip, "lib/é/x.txt", b"", 0o644);
        zip.add_symlink("lib/up", "../bin/run", SimpleFileOptions::default()).unwrap();
    });
    let (parent, result) = unpacked(&zip);
    assert_eq!(result.unwrap(), Contents { entries: 5, unzipped_bytes: 100_007 });
    let root = parent.path().join("code");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("app.py"), mode("bin/run"), mode("bin"), mode("empty"), mode(".")),
        (0o644, 0o755, 0o755, 0o755, 0o755)
    );
    assert_eq!(fs::read(root.join("lib/up")).unwrap(), [7; 100_000]);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn paths_that_lead_out_are_refused() {
    for (name, forged) in [
        ("xx/evil", "../evil"),
        ("a/bb/bb/evil", "a/../../evil"),
        ("xabsolute", "/absolute"),
        ("a/xx", "a/.."),
        ("nul-", "nul\0"),
    ] {
        let zip = forge(files(&[name]), name.as_bytes(), forged.as_bytes());
        assert!(reason(&zip).starts_with("path"), "{forged:?}");
    }
    let name = "n".repeat(256);
    assert!(reason(&files(&[&name])).starts_with("path"));
}

#[test]
fn names_given_twice_are_refused() {
    let twice = forge(files(&["app.py", "app.px"]), b"app.px", b"app.py");
    assert_eq!(reason(&twice), "a name twice");
    for names in [["a/x", "a//x"], ["./a", "a"], ["a", "a/b"], ["a/b", "a"]] {
        assert!(reason(&files(&names)).ends_with("twice"), "{names:?}");
    }
}

#[test]
fn links_may_not_lead_out() {
    for target in ["../../x", "/etc/passwd", "../../../x", "x/../../..", "e/../../x", "..//./..", ""] {
        let zip = link("d/link", target);
        assert!(reason(&zip).ends_with("leads out"), "{target:?}");
    }
    for target in ["e/file", "../d", "..", "./e", "missing"] {
        unpacked(&link("d/link", target)).1.unwrap_or_else(|e| panic!("{target:?}: {e:?}"));
    }
    assert!(reason(&link("d/e/file/link", "x")).ends_with("twice"), "an entry below a file");
}

#[test]
fn devices_are_refused() {
    let zip = link("pipe", "x");
    // S_IFLNK in the upper half of the external attributes becomes S_IFIFO, S_IFCHR, ...
    let attributes = |zip: &[u8], kind: u16| {
        let mut zip = zip.to_vec();
        let central = zip.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        zip[central + 40..central + 42].copy_from_slice(&(kind | 0o777).to_le_bytes());
        zip
    };
    for kind in [0o010_000, 0o020_000, 0o060_000, 0o140_000] {
        assert!(reason(&attributes(&zip, kind)).ends_with("is no file"), "{kind:o}");
    }
}

#[test]
fn what_is_no_whole_zip_is_refused() {
    let sound = files(&["app.py"]);
    reason(b"");
    reason(b"not a zip");
    reason(&sound[..sound.len() - 10]);
    reason(&sound[10..]);
    let mut encrypted = sound.clone();
    let central = encrypted.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    encrypted[6] |= 1;
    encrypted[central + 8] |= 1;
    reason(&encrypted);
    let wrong_sum = forge(zip(|zip| file(zip, "a", b"stored stored", 0o644)), b"a", b"b");
    let mut wrong_sum = wrong_sum;
    wrong_sum[14] ^= 1;
    let central = wrong_sum.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    wrong_sum[central + 16] ^= 1;
    reason(&wrong_sum);
    assert!(matches!(unpacked(&zip(|_| ())).1, Err(Error::Empty)));
}

#[test]
fn names_that_are_no_text_do_not_break_anything() {
    let forged = forge(files(&["abc"]), b"abc", b"a\xffc");
    let _ = unpacked(&forged);
}

#[test]
fn bombs_are_counted_by_what_comes_out() {
    let bomb = zip(|zip| {
        zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
        for _ in 0..64 {
            zip.write_all(&[0; 1 << 16]).unwrap();
        }
    });
    assert!(bomb.len() < 8_000);
    let dir = tempfile::tempdir().unwrap();
    let within = |zip: &[u8], limit| unpack_within(Cursor::new(zip), &dir.path().join("code"), limit);
    assert!(matches!(within(&bomb, 4 << 20), Err(Error::TooLarge { .. })));
    // The same, lying about its size.
    let mut lie = bomb.clone();
    let central = lie.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    lie[central + 24..central + 28].copy_from_slice(&7_u32.to_le_bytes());
    lie[22..26].copy_from_slice(&7_u32.to_le_bytes());
    assert!(within(&lie, 4 << 20).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    within(&bomb, (4 << 20) + 1).unwrap();
}

#[test]
fn messages_are_those_of_aws() {
    for (error, text) in [
        (Error::unreadable("x"), "Could not unzip uploaded file. Please check your file, then try to upload again."),
        (Error::TooLarge { limit: limits::UNZIPPED_CODE_BYTES }, "Unzipped size must be smaller than 262144000 bytes"),
        (Error::Empty, "Uploaded file must be a non-empty zip"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

fn entries() -> impl Strategy<Value = Vec<(String, Vec<u8>, bool)>> {
    let part = prop_oneof![Just("..".to_owned()), Just(".".to_owned()), Just(String::new()), "[abc]", "[abc]", "[abc]"];
    let name = proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    proptest::collection::vec((name, proptest::collection::vec(any::<u8>(), 0..20), any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the names and targets, nothing appears outside, and what is refused leaves nothing (see `unpacked`).
    #[test]
    fn nothing_gets_out(entries in entries()) {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content, is_link) in &entries {
            // The writer refuses some names itself; those are covered above.
            if *is_link {
                let target = entries[0].0.clone();
                let _ = writer.add_symlink(name, target, SimpleFileOptions::default());
            } else if writer.start_file(name, SimpleFileOptions::default()).is_ok() {
                writer.write_all(content).unwrap();
            }
        }
        let (parent, result) = unpacked(&writer.finish().unwrap().into_inner());
        if result.is_ok() {
            let root = parent.path().join("code").canonicalize().unwrap();
            let mut todo = vec![root.clone()];
            while let Some(dir) = todo.pop() {
                for entry in fs::read_dir(dir).unwrap() {
                    let path = entry.unwrap().path();
                    if let Ok(real) = path.canonicalize() {
                        prop_assert!(real.starts_with(&root), "{} leads to {}", path.display(), real.display());
                    }
                    if path.symlink_metadata().unwrap().is_dir() {
                        todo.push(path);
                    }
                }
            }
        }
    }

    /// Damage anywhere gives a result or an error, no panic, and leaves nothing where it is refused.
    #[test]
    fn damage_is_survived(at in 0..400_usize, byte in any::<u8>(), cut in 0..400_usize) {
        let mut zip = link("d/link", "e/file");
        let at = at % zip.len();
        zip[at] = byte;
        let _ = unpacked(&zip);
        zip.truncate(cut.min(zip.len()));
        let _ = unpacked(&zip);
    }
}
