import "graphiql/setup-workers/vite";
import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "graphiql/graphiql.css";
import "./main.css";

import { useGraphiQL } from "@graphiql/react";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

/** From the gateway: GraphQL documents to open as tabs, and headers to send along. */
const { operations, headers } = JSON.parse(document.getElementById("config").textContent);

/** GraphiQL's own fetcher speaks WebSockets and multipart too; the gateway does neither. */
async function fetcher(parameters, options) {
  let response, text;
  try {
    response = await fetch(location.pathname, {
      method: "POST",
      headers: withOurs(options?.headers),
      body: JSON.stringify({ ...parameters, variables: parameters.variables && asTyped(parameters.variables) }),
    });
    text = await response.text();
  } catch (error) {
    return failed(`the gateway did not answer: ${error.message}`);
  }
  try {
    return JSON.parse(text, asWritten);
  } catch {
    return failed(`the answer is not JSON (HTTP status ${response.status}): ${text.slice(0, 200)}`);
  }
}

/** Headers as they are filled in, in the place of ours, however their names are written: both would go out as one. */
function withOurs(given = {}) {
  const all = new Headers({
    accept: "application/graphql-response+json, application/json",
    "content-type": "application/json",
  });
  Object.entries(given).forEach(([name, value]) => all.set(name, value));
  return all;
}

/** In the place of an answer. What is thrown would be shown with its stack, which tells of this bundle alone. */
const failed = (message) => ({ errors: [{ message }] });

/** Keeps what JavaScript's numbers cannot hold, as the gateway does, in browsers that can (JSON.rawJSON). */
function asWritten(_key, value, context) {
  return typeof value === "number" && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

/** Variables as they stand in their editor, unless that holds comments: what GraphiQL has parsed has lost digits. */
function asTyped(parsed) {
  try {
    return JSON.parse(variableEditor.getValue(), asWritten);
  } catch {
    return parsed;
  }
}

let variableEditor;

/** Stands inside GraphiQL, where its editors can be had. */
function Name() {
  variableEditor = useGraphiQL((state) => state.variableEditor);
  return <h1>Session Gateway</h1>;
}

/** localStorage, under a name of our own: other people's GraphiQL runs on localhost too, and all use the same keys. */
const ours = (key) => `session-gateway:${key}`;
const all = () => Object.keys(localStorage).filter((key) => key.startsWith(ours("")));
const storage = {
  getItem: (key) => localStorage.getItem(ours(key)),
  setItem: (key, value) => localStorage.setItem(ours(key), value),
  removeItem: (key) => localStorage.removeItem(ours(key)),
  clear: () => all().forEach((key) => localStorage.removeItem(key)),
  get length() {
    return all().length;
  },
};

createRoot(document.getElementById("playground")).render(
  <GraphiQL
    fetcher={fetcher}
    storage={storage}
    defaultTabs={operations.map((query) => ({ query }))}
    defaultHeaders={JSON.stringify(headers, null, 2)}
  >
    <GraphiQL.Logo>
      <Name />
    </GraphiQL.Logo>
  </GraphiQL>,
);
