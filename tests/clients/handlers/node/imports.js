require('nothing-of-this-name');
