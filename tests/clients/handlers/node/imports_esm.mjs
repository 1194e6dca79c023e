import 'nothing-of-this-name';
