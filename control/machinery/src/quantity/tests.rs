use super::*;
use proptest::prelude::*;

fn q(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn canonical_forms_are_gos() {
    for (text, out) in [
        ("0", "0"),
        ("0Mi", "0"),
        ("0.0", "0"),
        ("1", "1"),
        ("1000", "1k"),
        ("1000m", "1"),
        ("1.5", "1500m"),
        ("1.500", "1.500"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Ki", "1Mi"),
        ("1025Ki", "1025Ki"),
        ("512Mi", "512Mi"),
        ("1024", "1024"),
        ("100Ki", "100Ki"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("0.1Ki", "102400m"),
        ("0.001Ki", "1024m"),
        ("0.0001Ki", "102400u"),
        ("12e6", "12e6"),
        ("12000e3", "12e6"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("1.1E3", "1100"),
        ("100e-3", "100e-3"),
        ("1e0", "1e0"),
        ("0.1n", "1n"),
        ("0.0000000001", "1n"),
        ("1u", "1u"),
        ("-1.5", "-1500m"),
        ("-0.1n", "-1n"),
        ("+5", "+5"),
        ("1E", "1E"),
        ("1000E", "1000E"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("8Ei", "9223372036854775807"),
        ("16Ei", "9223372036854775807"),
        ("1Ei", "1Ei"),
        ("64Gi", "64Gi"),
        ("129e6", "129e6"),
        ("0.3Gi", "322122547200m"),
        ("100000000000000000000", "100E"),
        ("8Ki", "8Ki"),
        ("1.G", "1.G"),
    ] {
        assert_eq!(q(text).to_string(), out, "{text}");
    }
}

#[test]
fn texts_that_are_no_quantity() {
    for (text, error) in [
        ("", Error::Format),
        ("1.1.M", Error::Format),
        ("1+1.0M", Error::Format),
        ("0.1mi", Error::Suffix),
        ("0.1am", Error::Format),
        ("aoeu", Error::Format),
        (".5i", Error::Suffix),
        ("1i", Error::Suffix),
        ("-3.01i", Error::Suffix),
        ("-3.01e-", Error::Suffix),
        ("1 Gi", Error::Format),
        ("1e", Error::Suffix),
        ("1GiB", Error::Format),
    ] {
        assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Err(error), "{text}");
    }
}

#[test]
fn what_is_written_must_not_be_too_large_to_be_read() {
    for text in ["0200e1000000", "1000e999999", "123456789e999995"] {
        assert!(Quantity::parse(text).is_err(), "{text}");
    }
    for text in ["1e1000000", "200e999998", "0e1000000"] {
        let canonical = q(text).canonical();
        assert_eq!(q(&canonical).canonical(), canonical, "{text}");
    }
}

#[test]
fn values_round_away_from_zero_and_saturate() {
    assert_eq!(q("1.1").value(), 2);
    assert_eq!(q("-1.1").value(), -2);
    assert_eq!(q("100m").milli_value(), 100);
    assert_eq!(q("1n").milli_value(), 1);
    assert_eq!(q("2Gi").value(), 2 << 30);
    assert_eq!(q("1e30").value(), i64::MAX);
    assert_eq!(q("-1e30").value(), i64::MIN);
    assert_eq!(q("1500m").as_i64(), None);
    assert_eq!(q("3k").as_i64(), Some(3000));
}

#[test]
fn sums_keep_the_first_ones_format() {
    assert_eq!(q("1Gi").add(&q("1G")).format(), Format::BinarySi);
    assert_eq!(q("0").add(&q("1Gi")).to_string(), "1Gi");
    assert_eq!(q("1").add(&q("500m")).to_string(), "1500m");
    assert_eq!(q("1").sub(&q("500m")).to_string(), "500m");
    assert!(q("1e1000").add(&q("1")) > q("1e1000"));
    assert!(q("1k") == q("1000") && q("1Ki") > q("1k") && q("-1") < q("0") && q("-2") < q("-1"));
    assert!(q("1e1000") > q("1e999") && q("1e-5") > q("0"));
}

fn texts() -> impl Strategy<Value = String> {
    "[+-]?[0-9]{0,25}(\\.[0-9]{0,12})?(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})"
}

proptest! {
    #[test]
    fn the_canonical_form_is_the_same_quantity(text in texts()) {
        if let Ok(quantity) = Quantity::parse(&text) {
            let canonical = Quantity::parse(&quantity.canonical()).unwrap();
            prop_assert_eq!(&canonical, &quantity);
            prop_assert_eq!(canonical.canonical(), quantity.canonical());
        }
    }

    #[test]
    fn addition_and_subtraction_undo_each_other(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
        let (a, b) = (Quantity::from_milli(a, Format::DecimalSi), Quantity::new(b, Format::BinarySi));
        prop_assert_eq!(&a.add(&b).sub(&b), &a);
        prop_assert_eq!(a.add(&b), b.add(&a));
        prop_assert_eq!(a.sub(&b).neg(), b.sub(&a));
    }

    #[test]
    fn order_is_that_of_the_numbers(a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(Quantity::new(a, Format::DecimalSi).cmp(&Quantity::new(b, Format::BinarySi)), a.cmp(&b));
    }

    #[test]
    fn no_input_panics(text in any::<String>(), near in "[-+0-9.eEinumkKMGTP]{0,60}") {
        for text in [text, near] {
            if let Ok(q) = Quantity::parse(&text) {
                let _ = (q.to_string(), q.value(), q.milli_value(), q.add(&q), q.sub(&q), q.as_f64());
            }
        }
    }
}
