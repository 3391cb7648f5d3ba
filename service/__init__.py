"""The service that people and programs use: HTTP API, web pages, client, command line.

Sub-packages in order. Each may import the ones above it, and the packages `registry`, `engine` and
`assembler`:

1. modules of this folder except `gateway` and `app`: schemas, tables, errors, keys, data folder
2. `reports`: gate reports and comparisons as tables and HTML; verification of published mixes
3. `web`: what all HTTP routes share
4. `api` and `ui`: the REST routes and the web pages; neither imports the other. `gateway`, the
   OpenAI-compatible routes, and `app`, the web process, are above them
5. `client`: the client library; imports schemas and errors, nothing of `web`, `api` or `ui`
6. `terminal`: what commands print
7. `runtime`: starts the processes of the service and keeps them running
8. `demo`: the demo, from public texts to a served mix
9. `cli`: the command line

The web process is `app` and what it imports. It loads nothing of 5 to 9.
"""
