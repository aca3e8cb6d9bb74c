from odtrain.io.markdown import escaped, table


def test_a_table_has_a_header_a_rule_and_a_line_a_row():
    assert table(("", "A", "", ""), [("x", 1, "", None)]) == [
        "| | A | | |",
        "|---|---|---|---|",
        "| x | 1 |  | None |",
    ]


def test_text_of_a_cell_stays_in_its_cell():
    assert escaped("a|b\nc") == "a\\|b c"
