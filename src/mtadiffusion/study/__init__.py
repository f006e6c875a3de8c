"""The user study: results of several methods side by side, judged by people over the web.

A study is a folder made by `create`; `server` asks, `store` keeps the answers, `report` evaluates.
"""
