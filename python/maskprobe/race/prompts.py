"""The prompts of a race: what people ask models for, from all anew to mostly copied."""

from __future__ import annotations

_CODE = """\
def total(prices, tax):
    result = 0
    for price in prices:
        result = result + price
    result = result + result * tax
    return result


def average(prices):
    result = 0
    for price in prices:
        result = result + price
    return result / len(prices)
"""
_LETTER = (
    "Dear Ms Okafor, thank you for your order 48213 of 3 March. We have sent two lamps of the model Aurora at 39.90 "
    "each and one shelf Birka at 89.00 to your address, 12 Harbour Road, Cork. The parcel should arrive on 9 March. "
    "Yours, Tomas Lind, Lind and Daughters"
)
_REPORT = (
    "The night ferry was late again on Tuesday. Fog had closed the outer harbour from nine in the evening, and the "
    "pilots would not take ships over 120 metres through the narrows until it lifted. Three hundred passengers slept "
    "in the terminal, where the company handed out blankets and soup. By six the fog was gone, and the ferry left with "
    "nine hours' delay. The harbour office says that a second radar, asked for since 2019, would have let it leave at "
    "midnight."
)

PROMPTS = {
    "chat": "Why is the sky blue in the day and red in the evening?",
    "code": f"Rename the variable result to amount in this code. Write the whole code again.\n\n```python\n{_CODE}```",
    "json": (
        "Write the order in this letter as JSON with the keys customer, address, order, date, items (each with name, "
        f"count and price), sender.\n\n{_LETTER}"
    ),
    "summary": f"Summarize this text in three sentences, in its own words where possible.\n\n{_REPORT}",
    "tool": (
        "You can call these tools by writing JSON with name and arguments, one call on each line:\n"
        '{"name": "find_flights", "parameters": {"from": "string", "to": "string", "date": "string"}}\n'
        '{"name": "book_hotel", "parameters": {"city": "string", "from": "string", "to": "string"}}\n\n'
        "Find flights from Oslo to Lisbon on 2026-05-02 and back on 2026-05-09, and book a hotel in Lisbon for these "
        "days."
    ),
}
