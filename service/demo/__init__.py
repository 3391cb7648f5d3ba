"""The demo: public texts, trained experts, a mix, its gate, a served model, and what it promises.

It uses the interfaces that users have. It may import `client`, `terminal`, `runtime` and `reports`.
"""
