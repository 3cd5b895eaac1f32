// The same answer as the function `hello`, from Node's HTTP server. Prints its address, then serves.
const http = require("node:http");

const server = http.createServer((request, response) => {
  let name = "";
  request.setEncoding("utf8");
  request.on("data", (chunk) => (name += chunk));
  request.on("end", () => {
    const reply = `Hello, ${name}!\n`;
    response.writeHead(200, { "content-type": "application/octet-stream", "content-length": reply.length });
    response.end(reply);
  });
});

server.keepAliveTimeout = 0; // Connections wait while other servers have their turn.
server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
