use super::*;

#[test]
fn the_loss_that_is_allowed_is_a_percentage() {
    assert_eq!("0.01%".parse(), Ok(MaxLoss(0.0001)));
    assert_eq!("100 %".parse(), Ok(MaxLoss(1.0)));
    for wrong in ["0.01", "-1%", "101%", "%", "NaN%", "some"] {
        let error = wrong.parse::<MaxLoss>().unwrap_err();
        assert!(error.contains("such as 0.01%"), "{wrong}: {error}");
    }
}
