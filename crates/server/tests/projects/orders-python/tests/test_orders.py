import orders


def test_what_a_customer_spent_is_the_sum_of_their_orders():
    db = orders.connect()
    orders.create(db)
    before = orders.spent(db, "ada")
    first = orders.place(db, "ada", 1250)
    second = orders.place(db, "ada", 750)
    orders.place(db, "grace", 99)
    assert second > first
    assert orders.spent(db, "ada") == before + 2000


def test_who_never_ordered_spent_nothing():
    db = orders.connect()
    orders.create(db)
    assert orders.spent(db, "nobody") == 0
