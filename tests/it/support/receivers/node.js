
const fs = require("node:fs");
const lines = fs.readFileSync("headers", "utf8").trim().split("\n");
const headers = Object.fromEntries(lines.map((line) => line.split(/: (.*)/)));
try {
  receive(fs.readFileSync("secret", "utf8"), headers, fs.readFileSync("body"));
  console.log("accepted");
} catch (error) {
  console.log("refused:", error.message);
}
