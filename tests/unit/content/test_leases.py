from kitd.content.leases import Lease, Leases
from kitd.spec.digest import digest_of

A, B = digest_of(b"a"), digest_of(b"b")


def test_what_somebody_holds_is_not_condemned() -> None:
    leases = Leases()
    with Lease(leases) as one, Lease(leases) as two:
        one.hold(A)
        one.hold(A)
        two.hold(A)
        one.release()
        assert leases.condemn({A, B}) == {B}
        assert leases.condemned(B)
        assert not leases.condemned(A)
    assert leases.held() == set()
    leases.spare()
    assert not leases.condemned(B)
    assert leases.condemn({A}) == {A}
