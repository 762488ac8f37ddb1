use proptest::prelude::*;

use super::*;
use crate::digest::ContentHash;
use crate::output::samples::full;
use crate::output::{File, Role};

/// An output with files, and its archive.
struct Sample {
    folder: tempfile::TempDir,
    output: Output,
    files: Vec<PathBuf>,
}

impl Sample {
    fn new(contents: &[&[u8]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut output = full();
        output.files.clear();
        let mut files = Vec::new();
        for (index, content) in contents.iter().enumerate() {
            let path = folder.path().join(index.to_string());
            fs::write(&path, content).unwrap();
            output.files.push(File {
                role: Role::Library,
                name: format!("lib{index}@.rlib"),
                size: content.len() as u64,
                sha256: Some(ContentHash::of(content)),
                time: None,
                mode: if index == 0 { 0o644 } else { 0o755 },
                portable: false,
            });
            files.push(path);
        }
        Self {
            folder,
            output,
            files,
        }
    }

    fn pack(&self) -> (ArchiveRef, Vec<u8>) {
        let to = self.folder.path().join("archive");
        let archive = pack(&self.output, &self.files, &to).unwrap();
        (archive, fs::read(&to).unwrap())
    }

    /// Unpacks bytes that are said to be the archive they are.
    fn unpack(&self, bytes: &[u8]) -> Result<(), UnpackError> {
        let archive = ArchiveRef {
            sha256: ContentHash::of(bytes),
            size: bytes.len() as u64,
        };
        let into = fs::unique_beside(&self.folder.path().join("into"));
        unpack(&self.output, archive, bytes, &into)
    }

    /// The same with a tar of our own making.
    fn unpack_tar(&self, entries: &[(&str, &[u8], u32)]) -> Result<(), UnpackError> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content, mode) in entries {
            let mut header = tar::Header::new_ustar();
            // Names such as `../x` have to be written by force.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        self.unpack(&zstd::bulk::compress(&tar, 3).unwrap())
    }
}

fn is_refused(result: Result<(), UnpackError>) -> bool {
    matches!(result, Err(UnpackError::Refused(_) | UnpackError::Read(_)))
}

#[test]
fn what_was_packed_is_unpacked_and_packed_the_same() {
    let big = vec![7; 1 << 20];
    let sample = Sample::new(&[b"metadata", &big, b""]);
    let (archive, bytes) = sample.pack();
    assert_eq!(sample.pack(), (archive, bytes.clone()));
    assert!(is_plausible(&sample.output, archive));
    let into = sample.folder.path().join("into");
    unpack(&sample.output, archive, bytes.as_slice(), &into).unwrap();
    for (index, file) in sample.output.files.iter().enumerate() {
        let path = into.join(file.store_name(index));
        assert_eq!(Some(fs::hash_file(&path).unwrap()), file.sha256);
        assert_eq!(fs::mode(&path).unwrap(), file.mode);
    }
    let none = Sample::new(&[]);
    let (archive, bytes) = none.pack();
    unpack(&none.output, archive, bytes.as_slice(), &into.join("none")).unwrap();
}

#[test]
fn a_repetition_far_away_is_packed_once() {
    let mut noise = vec![0; 3 << 20];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    let sample = Sample::new(&[&noise, &noise]);
    let (archive, _) = sample.pack();
    assert!(archive.size < 4 << 20, "{}", archive.size);
}

#[test]
fn other_archives_are_refused() {
    let sample = Sample::new(&[b"one", b"two"]);
    let one = ("files/0", &b"one"[..], 0o644);
    let two = ("files/1", &b"two"[..], 0o755);
    sample.unpack_tar(&[one, two]).unwrap();
    let refused = |what: &str, entries: &[(&str, &[u8], u32)]| {
        assert!(is_refused(sample.unpack_tar(entries)), "{what}");
    };
    refused("a file less", &[one]);
    refused("a file more", &[one, two, two]);
    refused("another order", &[two, one]);
    refused("another name", &[("files/2", b"one", 0o644), two]);
    refused("a way out", &[("../files/0", b"one", 0o644), two]);
    refused("an absolute path", &[("/files/0", b"one", 0o644), two]);
    refused("another mode", &[("files/0", b"one", 0o755), two]);
    refused("another content", &[("files/0", b"eno", 0o644), two]);
    refused("another size", &[("files/0", b"onee", 0o644), two]);
}

#[test]
fn another_end_is_refused() {
    let sample = Sample::new(&[b"one"]);
    let (archive, bytes) = sample.pack();
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(is_refused(sample.unpack(&longer)));
    let mut twice = bytes.clone();
    twice.extend(&bytes);
    assert!(is_refused(sample.unpack(&twice)));
    for end in 0..bytes.len() {
        assert!(is_refused(sample.unpack(&bytes[..end])), "{end}");
    }
    // With the reference to the whole one, too.
    let into = sample.folder.path().join("x");
    for other in [&longer, &twice] {
        let result = unpack(&sample.output, archive, other.as_slice(), &into);
        assert!(is_refused(result));
    }
    let tar = zstd::decode_all(bytes.as_slice()).unwrap();
    let padded = [tar, vec![0; 512]].concat();
    assert!(is_refused(
        sample.unpack(&zstd::bulk::compress(&padded, 3).unwrap())
    ));
}

#[test]
fn links_and_bombs_are_refused() {
    let sample = Sample::new(&[b"one"]);
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Directory,
        tar::EntryType::GNULongName,
        tar::EntryType::XHeader,
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_path("files/0").unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header, io::empty()).unwrap();
        let tar = tar.into_inner().unwrap();
        let bytes = zstd::bulk::compress(&tar, 3).unwrap();
        assert!(is_refused(sample.unpack(&bytes)), "{kind:?}");
    }
    // A thousand million zeros behind the file: read no further than promised.
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let start = zstd::decode_all(sample.pack().1.as_slice()).unwrap();
    encoder.write_all(&start).unwrap();
    for _ in 0..1_000 {
        encoder.write_all(&vec![0; 1_000_000]).unwrap();
    }
    assert!(is_refused(sample.unpack(&encoder.finish().unwrap())));
    // A window that would take the memory.
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&start).unwrap();
    let result = sample.unpack(&encoder.finish().unwrap());
    assert!(matches!(result, Err(UnpackError::Read(_))), "{result:?}");
    let huge = ArchiveRef {
        sha256: ContentHash::of(b""),
        size: 2 << 20,
    };
    assert!(!is_plausible(&sample.output, huge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let sample = Sample::new(&[b"some metadata", b"a library with some metadata"]);
        let (archive, mut bytes) = sample.pack();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let into = sample.folder.path().join("into");
        let result = unpack(&sample.output, archive, bytes.as_slice(), &into);
        prop_assert!(is_refused(result));
        prop_assert!(is_refused(verify(&sample.output, archive, bytes.as_slice())));
    }
}
