"""The API's form: every native operation described once, and what is made of that: the OpenAPI document and its reference page.

Pure data. Handlers do not import it (`tests/unit/test_import_graph.py`): a request is checked where it is read, and the tests hold the two
against each other.
"""
