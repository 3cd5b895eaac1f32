module.exports = require("dormouse:node/http").of("https:");
