use super::*;
use std::io::Read;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_is_full_is_set_aside_under_lumberjacks_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/audit.log");
    let rotation = Rotation { size: Some(10), ..Rotation::default() };
    let mut log = LogFile::create(&path, rotation).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let now = at("2026-01-02T03:04:05.678Z");
    assert!(log.write(b"12345678\n", now).unwrap());
    assert!(log.write(b"b\n", now).unwrap());
    assert!(!log.write(b"c\n", now).unwrap());
    // In the same millisecond: nothing is lost.
    assert!(log.write(b"12345678\n", now).unwrap());
    let dir = path.parent().unwrap();
    assert_eq!(
        names(dir),
        ["audit-2026-01-02T03-04-05.678.log", "audit-2026-01-02T03-04-05.679.log", "audit.log"]
    );
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(text("audit-2026-01-02T03-04-05.678.log"), "12345678\n");
    assert_eq!(text("audit-2026-01-02T03-04-05.679.log"), "b\nc\n");
    assert_eq!(text("audit.log"), "12345678\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(
        log.write(b"1234567890\n", now).unwrap_err().to_string(),
        "write length 11 exceeds maximum file size 10"
    );
}

#[test]
fn a_line_must_not_be_written_on_the_half_line_of_a_killed_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    for (left, expected) in [("{\"a\":", "{\"a\":\n{}\n"), ("{}\n", "{}\n{}\n"), ("", "{}\n")] {
        fs::write(&path, left).unwrap();
        let mut log = LogFile::create(&path, Rotation::default()).unwrap();
        log.write(b"{}\n", Timestamp::now()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}

#[test]
fn a_full_disk_must_not_have_what_was_written_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut log = LogFile::create(&path, Rotation { size: Some(10), ..Rotation::default() }).unwrap();
    for _ in 0..5 {
        assert_eq!(log.write(b"12345\n", Timestamp::now()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(names(dir.path()), ["audit.log"]);
}

#[test]
fn a_log_that_was_taken_away_must_not_cost_the_line_that_fills_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut log = LogFile::create(&path, Rotation { size: Some(10), ..Rotation::default() }).unwrap();
    log.write(b"12345678\n", Timestamp::now()).unwrap();
    fs::remove_file(&path).unwrap();
    log.write(b"87654321\n", Timestamp::now()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "87654321\n");
    assert_eq!(names(dir.path()), ["audit.log"]);
}

#[test]
fn what_was_set_aside_is_kept_by_number_and_age() {
    let day = |n: u32| (at(&format!("2026-01-{n:02}T00:00:00Z")), format!("a-{n}"));
    let zipped = |n: u32| (day(n).0, format!("a-{n}.gz"));
    let now = at("2026-01-10T12:00:00Z");
    let all = || vec![day(1), zipped(8), day(9), day(8), day(10)];
    let plan = |rotation| {
        let Plan { remove, compress } = Plan::of(all(), rotation, now);
        (remove, compress)
    };
    let none: [&str; 0] = [];
    let (remove, compress) = plan(Rotation { backups: Some(2), ..Rotation::default() });
    assert_eq!((remove, compress), (vec!["a-8.gz".into(), "a-8".into(), "a-1".into()], vec![]));
    let (remove, compress) = plan(Rotation { days: Some(2), compress: true, ..Rotation::default() });
    assert_eq!(remove, ["a-8.gz", "a-8", "a-1"]);
    assert_eq!(compress, ["a-10", "a-9"]);
    let (remove, _) = plan(Rotation::default());
    assert_eq!(remove, none);
}

#[test]
fn only_what_was_set_aside_is_touched_and_it_is_compressed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    for name in [
        "audit.log",
        "audit-old.log",
        "audit-2026-01-02T03-04-05.678.log",
        "other-2026-01-02T03-04-05.678.log",
    ] {
        fs::write(dir.path().join(name), "text\n").unwrap();
    }
    let rotation = Rotation { compress: true, ..Rotation::default() };
    tidy(&path, rotation, Timestamp::now()).unwrap();
    let kept = [
        "audit-2026-01-02T03-04-05.678.log.gz",
        "audit-old.log",
        "audit.log",
        "other-2026-01-02T03-04-05.678.log",
    ];
    assert_eq!(names(dir.path()), kept);
    let zipped = File::open(dir.path().join(kept[0])).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped).read_to_string(&mut text).unwrap();
    assert_eq!(text, "text\n");
    tidy(&path, Rotation { days: Some(1), ..rotation }, Timestamp::now()).unwrap();
    assert_eq!(names(dir.path()).len(), 3);
}
