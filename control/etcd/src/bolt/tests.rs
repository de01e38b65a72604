use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn write(path: &Path, buckets: &BTreeMap<Vec<u8>, Contents>) {
    let mut writer = Writer::create(path).unwrap();
    // In another order than they are found in.
    for (name, contents) in buckets.iter().rev() {
        let mut bucket = writer.bucket(name);
        contents.iter().for_each(|(key, value)| bucket.put(key, value).unwrap());
        bucket.finish().unwrap();
    }
    writer.finish().unwrap();
}

fn read(path: &Path) -> Result<BTreeMap<Vec<u8>, Contents>, Error> {
    let reader = Reader::open(path)?;
    let mut found = BTreeMap::new();
    for name in reader.buckets()? {
        let mut contents = Contents::new();
        reader.each(&name, |key, value| {
            contents.insert(key.to_vec(), value.to_vec());
            Ok::<(), Error>(())
        })?;
        found.insert(name, contents);
    }
    Ok(found)
}

#[test]
fn many_keys_and_large_values_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let many = (0..50_000_u64).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; (n % 300) as usize]));
    let mut many: Contents = many.collect();
    many.insert(25_000_u64.to_be_bytes().to_vec(), vec![7; 1_500_000]);
    let buckets = BTreeMap::from([
        (b"key".to_vec(), many),
        (b"empty".to_vec(), Contents::new()),
        (b"meta".to_vec(), Contents::from([(b"x".to_vec(), Vec::new())])),
    ]);
    write(&path, &buckets);
    assert!(read(&path).unwrap() == buckets);
}

#[test]
fn a_key_must_not_come_before_its_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&dir.path().join("db")).unwrap();
    let mut bucket = writer.bucket(b"key");
    bucket.put(b"b", b"").unwrap();
    assert!(matches!(bucket.put(b"b", b""), Err(Error::Order { .. })));
    assert!(matches!(bucket.put(b"a", b""), Err(Error::Order { .. })));
}

#[test]
fn the_newer_marks_must_count_and_damaged_ones_must_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let buckets = BTreeMap::from([(b"key".to_vec(), Contents::from([(b"a".to_vec(), b"1".to_vec())]))]);
    write(&path, &buckets);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 8], 16 + 48).unwrap();
    assert!(read(&path).unwrap() == buckets, "the second page of marks is whole");
    file.write_all_at(&[0xff; 8], 4096 + 16 + 48).unwrap();
    assert!(matches!(read(&path), Err(Error::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_is_an_error_not_a_panic(at in 0_u64..40_000, byte: u8, cut in 0_u64..40_000) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let contents = (0..300_u32).map(|n| (n.to_be_bytes().to_vec(), vec![1; 90])).collect();
        write(&path, &BTreeMap::from([(b"key".to_vec(), contents)]));
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[byte], at).unwrap();
        let _ = read(&path);
        file.set_len(cut).unwrap();
        let _ = read(&path);
    }
}
